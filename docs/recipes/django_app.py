"""A batcher in Django: uvicorn django_app:asgi, or in threads: waitress-serve --threads=64 django_app:wsgi"""

import json

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from batchers import create_batcher


def lengths(batch: list[str]) -> list[int]:
    return [len(text) for text in batch]


batcher = create_batcher("threading", lengths, max_batch_size=64, max_queue_size=1000, timeout=2.0)


@csrf_exempt
async def length(request: HttpRequest) -> JsonResponse:  # under asgi, it waits in the event loop
    return JsonResponse({"length": await batcher.process(json.loads(request.body))})


@csrf_exempt
def length_in_a_thread(request: HttpRequest) -> JsonResponse:  # under wsgi, it waits in the thread of the request
    return JsonResponse({"length": batcher.call(json.loads(request.body))})


def stats(_: HttpRequest) -> JsonResponse:
    return JsonResponse({"completed": batcher.stats().completed, "batches": batcher.stats().batches})


urlpatterns = [path("length", length), path("thread/length", length_in_a_thread), path("stats", stats)]
settings.configure(SECRET_KEY="recipe", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"])
asgi = get_asgi_application()
wsgi = get_wsgi_application()
