"""Its models."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class Customer(models.Model):
    """Who orders."""

    name = models.CharField(max_length=100, unique=True)
    details = models.JSONField(default=dict)
    since = models.DateTimeField(auto_now_add=True)


class Order(models.Model):
    """What is ordered."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    number = models.IntegerField()
    price = models.DecimalField(max_digits=10, decimal_places=2)
    note = models.TextField(default="")

    class Meta:
        """As the migrations have it."""

        indexes: ClassVar = [models.Index(fields=["number"], name="shop_number")]
