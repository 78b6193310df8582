"""A hub around a Django project: `hub.wrap` in asgi.py, `hub.sync` in views."""

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from hubbub import Hub

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1", "localhost"], SECRET_KEY="only for this example")
django.setup()
hub = Hub()


def ring(request: HttpRequest) -> JsonResponse:
    receipt = hub.sync.broadcast("system_message", {"message": "Ring!"})
    return JsonResponse({"connections": receipt.connections})


urlpatterns = [path("ring", ring)]
app = hub.wrap(get_asgi_application())
