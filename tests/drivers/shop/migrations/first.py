"""The tables, with a row."""

from __future__ import annotations

from typing import Any, ClassVar

import django.db.models.deletion
from django.db import migrations, models


def welcome(apps: Any, editor: Any) -> None:
    """Store the first customer with the models of this migration."""
    apps.get_model("shop", "Customer").objects.using(editor.connection.alias).create(name="first")


def _key() -> Any:
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


class Migration(migrations.Migration):
    """In one transaction."""

    initial = True
    operations: ClassVar = [
        migrations.CreateModel(
            "Customer",
            [
                ("id", _key()),
                ("name", models.CharField(max_length=100, unique=True)),
                ("details", models.JSONField(default=dict)),
                ("since", models.DateTimeField(auto_now_add=True)),
            ],
        ),
        migrations.CreateModel(
            "Order",
            [
                ("id", _key()),
                (
                    "customer",
                    models.ForeignKey(
                        "shop.customer", on_delete=django.db.models.deletion.CASCADE, related_name="orders"
                    ),
                ),
                ("number", models.IntegerField()),
                ("price", models.IntegerField()),
            ],
        ),
        migrations.RunPython(welcome, migrations.RunPython.noop),
    ]
