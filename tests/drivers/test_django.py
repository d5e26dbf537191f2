"""Django on psycopg 3, with Django's defaults: autocommit, parameters in the text, and cursors on the server."""

from __future__ import annotations

import contextlib
import copy
import itertools
from typing import TYPE_CHECKING, Any, Final, cast

import django
import django.db
import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections, models, transaction

from tests.drivers.client import Client
from tests.drivers.common import CommonCells
from tests.drivers.session import SessionCells
from tests.drivers.test_psycopg3 import arguments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers.site import Site

_TABLES: Final = ("shop_order", "shop_customer", "django_migrations")

settings.configure(
    DATABASES={alias: {"ENGINE": "django.db.backends.postgresql"} for alias in ("default", "second")},
    INSTALLED_APPS=["tests.drivers.shop"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    USE_TZ=True,
)
django.setup()

from tests.drivers.shop.models import Customer, Order  # noqa: E402 - models need the settings

_serial = itertools.count()


def address(site: Site) -> dict[str, Any]:
    """Where the site is, in Django's words."""
    return {
        "HOST": site.host,
        "PORT": str(site.port),
        "NAME": site.database,
        "USER": site.role.name,
        "PASSWORD": site.role.password,
    }


class Django(Client):
    """A connection of Django under a name of its own, with its defaults."""

    error = django.db.Error
    lost = (django.db.OperationalError, django.db.InterfaceError)

    def __init__(self, alias: str) -> None:
        self.alias = alias

    @classmethod
    def open(cls, site: Site, /, *, password: str | None = None, **settings: str) -> Django:
        """Connect."""
        alias = f"client {next(_serial)}"
        options = arguments(site, password, settings)
        database = copy.deepcopy(connections.databases["default"]) | address(site)
        database["PASSWORD"] = options["password"]
        database["OPTIONS"] = {key: options[key] for key in ("application_name", "options") if key in options}
        connections.databases[alias] = database
        client = cls(alias)
        try:
            connections[alias].ensure_connection()
        except BaseException:
            client.close()
            raise
        return client

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a statement, which is a transaction of its own by default."""
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement.replace("?", "%s"), values or None)
            return cursor.fetchall() if cursor.description else []

    def transaction(self) -> contextlib.AbstractContextManager[object]:
        """Django's own block, which is a savepoint inside of another one."""
        return cast("contextlib.AbstractContextManager[object]", transaction.atomic(using=self.alias))

    def close(self) -> None:
        """Close the connection and forget its name."""
        if self.alias in connections.databases:
            connections[self.alias].close()
            del connections[self.alias]
            del connections.databases[self.alias]

    @staticmethod
    def sqlstate(error: Any) -> str | None:
        """Where the driver has it."""
        return cast("str | None", error.__cause__.sqlstate)


@contextlib.contextmanager
def _optional(site: Site, **options: object) -> Iterator[Django]:
    alias = f"client {next(_serial)}"
    connections.databases[alias] = copy.deepcopy(connections.databases["default"]) | address(site)
    connections.databases[alias]["OPTIONS"] = options
    with contextlib.closing(Django(alias)) as client:
        yield client


@pytest.mark.driver("django")
class TestDjango(CommonCells, SessionCells):
    """Django."""

    kind = Django
    refusal = django.db.OperationalError
    misfit = django.db.DataError
    prepares = False

    @pytest.fixture
    def databases(self, site: Site) -> Iterator[None]:
        """Django's databases `default` and `second` are the site, over a connection each."""
        for alias in ("default", "second"):
            connections.databases[alias].update(address(site))
        site.tables += _TABLES
        yield
        connections.close_all()

    @pytest.fixture
    def shop(self, databases: None) -> None:
        """The application's tables."""
        call_command("migrate", verbosity=0)

    def test_parameters_on_the_server(self, site: Site) -> None:
        """The option by which Django leaves parameters to the server."""
        with _optional(site, server_side_binding=True) as client:
            for turn in range(12):
                site.change_servers()
                assert client.rows("SELECT CAST(? AS int) + 1, CAST(? AS text)", turn, "é") == [
                    (turn + 1, "é")
                ]

    def test_prepared_by_option(self, site: Site) -> None:
        """The options by which Django leaves it to the driver to prepare statements."""
        with _optional(site, server_side_binding=True, prepare_threshold=1) as client:
            for turn in range(12):
                site.change_servers()
                assert client.one("SELECT CAST(? AS int) + 1", turn) == turn + 1
            assert client.one("SELECT count(*) FROM pg_prepared_statements") > 0

    def test_role_by_option(self, site: Site) -> None:
        """The option by which Django takes a role on when it connects."""
        with _optional(site, assume_role="pg_read_all_stats") as client:
            for _ in range(3):
                site.change_servers()
                assert client.one("SELECT CAST(current_user AS text)") == "pg_read_all_stats"

    @pytest.mark.usefixtures("shop")
    def test_transactions_with_hooks(self, site: Site) -> None:
        """What shall happen after COMMIT happens then, and not after ROLLBACK; rows are locked until then."""
        done: list[int] = []
        for turn in range(3):
            site.change_servers()
            with transaction.atomic():
                first = Customer.objects.select_for_update().get(name="first")
                others = Customer.objects.using("second")
                with transaction.atomic(using="second"):
                    assert not others.select_for_update(skip_locked=True).filter(name="first").exists()
                first.details = {"turn": turn}
                first.save()
                transaction.on_commit(lambda turn=turn: done.append(turn))
                assert len(done) == turn
            assert others.get(name="first").details == {"turn": turn}
            with contextlib.suppress(LookupError), transaction.atomic():
                transaction.on_commit(lambda: done.append(-1))
                raise LookupError
        assert done == [0, 1, 2]

    @pytest.mark.usefixtures("shop")
    def test_large_rows_in_portions(self, site: Site) -> None:
        """Cursors on the server: kept WITH HOLD where there is no transaction, which is Django's default."""
        customer = Customer.objects.create(name="large")
        Order.objects.bulk_create(Order(customer=customer, number=n, price=1) for n in range(2000))
        orders = Order.objects.order_by("number").values_list("number", flat=True)
        found = []
        for number in orders.iterator(chunk_size=300):
            if number % 500 == 0:
                site.change_servers()
                assert Customer.objects.filter(name="large").exists()
            found.append(number)
        assert found == list(range(2000))
        with transaction.atomic():
            assert list(orders.iterator(chunk_size=300)) == found

    @pytest.mark.usefixtures("shop")
    def test_models(self, site: Site) -> None:
        """Objects of two tables, over two connections, and blocks that a constraint ends."""

        def violate(customer: Customer) -> None:
            with transaction.atomic():
                Order.objects.filter(customer=customer).delete()
                Customer.objects.create(name=customer.name)

        for turn in range(4):
            site.change_servers()
            customer = Customer.objects.create(name=f"customer {turn}", details={"a": [turn, None]})
            Order.objects.bulk_create(Order(customer=customer, number=n, price="1.50") for n in range(50))
            site.change_servers()
            second = Customer.objects.using("second").prefetch_related("orders").get(details__a__0=turn)
            assert (second.name, len(second.orders.all())) == (customer.name, 50)
            with pytest.raises(django.db.IntegrityError):
                violate(customer)
            with transaction.atomic():
                locked = Order.objects.select_for_update().filter(customer=customer, number__lt=10)
                assert locked.update(price=models.F("price") * 2) == 10
                with pytest.raises(django.db.IntegrityError):
                    violate(customer)
            site.change_servers()
            orders = Order.objects.using("second").filter(customer__name=customer.name)
            assert str(orders.aggregate(total=models.Sum("price"))["total"]) == "90.00"
        assert Customer.objects.filter(orders__number=3).count() == 4
        Customer.objects.all().delete()
        assert not Order.objects.using("second").exists()

    @pytest.mark.usefixtures("databases")
    def test_migrations(self, site: Site) -> None:
        """Up to the newest schema, which is that of the models, and down to nothing, twice."""
        for _ in range(2):
            site.change_servers()
            call_command("migrate", "shop", "first", verbosity=0)
            site.change_servers()
            call_command("migrate", verbosity=0)
            call_command("makemigrations", check_changes=True, dry_run=True, verbosity=0)
            assert Customer.objects.get().name == "first"
            index = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'shop_number'::regclass"
            assert site.pg.sql(index, dbname=site.database) == [(True,)]
            site.change_servers()
            call_command("migrate", "shop", "zero", verbosity=0)
            assert site.pg.sql("SELECT to_regclass('shop_order')", dbname=site.database) == [(None,)]
