"""An order and the news of it: both, or neither. Django's ORM, and the outbox in the project's own database."""

import os

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import path

from hubbub import Hub, outbox

FILE = os.environ.get("SHOP_FILE", "shop.db")
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": FILE}}
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="here only", DATABASES=DATABASES)
django.setup()
hub = Hub(outbox_url=f"sqlite:///{FILE}")  # makes the outbox's tables, and relays what is committed
hub.namespace("orders")


@transaction.atomic  # or ATOMIC_REQUESTS in DATABASES
def order(request: HttpRequest, item: str) -> HttpResponse:
    outbox.publish(connection, "orders", "placed", {"item": item})  # beside `Order.objects.create(item=item)`
    transaction.set_rollback(item == "moon")  # not for sale: there is no order, and nobody hears of one
    return HttpResponse()


urlpatterns = [path("orders/<item>", order)]
app = hub.wrap(get_asgi_application())
