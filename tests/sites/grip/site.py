"""A site with django-grip (and so gripcontrol): python site.py PORT HOOK"""
import sys

import django
from django.conf import settings

PORT, HOOK = int(sys.argv[1]), sys.argv[2]
settings.configure(
    ALLOWED_HOSTS=["*"],
    GRIP_PROXIES=[{"control_uri": HOOK + "/grip", "control_iss": "site", "key": "secret"}],
    MIDDLEWARE=["django_grip.GripMiddleware"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="x",
)
django.setup()

from django.http import HttpResponse
from django.urls import path
from django_grip import publish, set_hold_longpoll, set_hold_stream, websocket_only
from gripcontrol import HttpResponseFormat, HttpStreamFormat, WebSocketMessageFormat
from wsgiref.simple_server import make_server


def poll(request):
    if not request.grip.signed:
        return HttpResponse("not signed", status=501)
    set_hold_longpoll(request, "room", timeout=50)
    return HttpResponse("nothing\n")


def stream(request):
    set_hold_stream(request, "room", keep_alive_data="\n", keep_alive_timeout=50)
    return HttpResponse("begin\n", content_type="text/plain")


def send(request):
    text = request.body.decode()
    formats = [HttpResponseFormat(body=text), HttpStreamFormat(text), WebSocketMessageFormat(text)]
    publish("room", formats, blocking=True)
    return HttpResponse("Published\n")


@websocket_only
def chat(request):
    ws = request.wscontext
    if ws.is_opening():
        ws.accept()
        ws.subscribe("room")
    while ws.can_recv():
        message = ws.recv()
        if message is None:
            ws.close()
            break
        ws.send("echo " + message)


urlpatterns = [path("poll", poll), path("stream", stream), path("send", send), path("chat", chat)]

from django.core.wsgi import get_wsgi_application

server = make_server("127.0.0.1", PORT, get_wsgi_application())
print("listening", file=sys.stderr, flush=True)
server.serve_forever()
