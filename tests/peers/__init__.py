"""pgbouncer and hyperpool, side by side on the same files: what do they do differently?"""
