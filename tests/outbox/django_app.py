"""A Django project with a database that has an outbox; run with its URL, it commits and rolls back, and says `done`."""

from __future__ import annotations

import sys
from typing import Any
from urllib.parse import urlsplit

import django
import pytest
from django.conf import settings
from django.db import connection, models, transaction

from hubbub import UsageError, outbox


def database(url: str) -> dict[str, Any]:
    """Django's way to say where a database is."""
    if url.startswith("sqlite"):
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": url.partition(":///")[2]}
    parts = urlsplit(url)
    where = {"HOST": parts.hostname, "PORT": parts.port, "USER": parts.username, "NAME": parts.path[1:]}
    return {"ENGINE": "django.db.backends.postgresql", **where}


settings.configure(DATABASES={"default": database(sys.argv[1])}, INSTALLED_APPS=[])
django.setup()


class Order(models.Model):
    """Something to sell."""

    name: models.CharField[str, str] = models.CharField(max_length=50)

    class Meta:
        app_label = "orders"


with connection.schema_editor() as editor:
    editor.create_model(Order)


def sell(name: str) -> None:
    """Note an order, and tell of it."""
    order = Order.objects.create(name=name)
    outbox.publish(connection, "orders", "sold", {"id": order.pk, "name": name})
    outbox.send_to_user("default", "ada", "sold", {"name": name})


with transaction.atomic():
    sell("pen")
try:
    with transaction.atomic():
        sell("rolled back")
        raise ArithmeticError
except ArithmeticError:
    pass
with transaction.atomic():
    sell("ink")
    try:
        with transaction.atomic():
            sell("savepoint")
            raise ArithmeticError
    except ArithmeticError:
        pass
for wrong in (connection, "default"):
    with pytest.raises(UsageError, match="atomic"):
        outbox.publish(wrong, "orders", "sold", "without a transaction")
transaction.set_autocommit(False)
sell("by hand")
transaction.commit()
assert set(Order.objects.values_list("name", flat=True)) == {"pen", "ink", "by hand"}
transaction.rollback()
print("done")
