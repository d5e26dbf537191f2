"""The dashboard: one page that shows the overview, and lets administrators act.

::

    browser ──GET /─────────────────▶ page, script, style: files of this package
            ──GET /dashboard/overview▶ Snapshots ──▶ overview.Collector ──▶ views of the console
            ──POST /dashboard/do────▶ Orders ──▶ the console, as an administrator
"""
