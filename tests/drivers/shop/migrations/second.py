"""Columns that change, and an index that is made outside of a transaction."""

from __future__ import annotations

from typing import ClassVar

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    """Not in one transaction."""

    atomic = False
    dependencies: ClassVar = [("shop", "first")]
    operations: ClassVar = [
        migrations.AddField("order", "note", models.TextField(default="")),
        migrations.AlterField("order", "price", models.DecimalField(max_digits=10, decimal_places=2)),
        AddIndexConcurrently("order", models.Index(fields=["number"], name="shop_number")),
    ]
