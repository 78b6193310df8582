"""Test the shop without a server or a socket: Starlette's test client speaks ASGI to the app."""

from starlette.testclient import TestClient

from examples.shop import app


def test_whoever_follows_an_order_learns_that_it_was_shipped() -> None:
    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "welcome"
        socket.send_json({"type": "subscribe", "payload": {"channel": "order:7"}})
        assert socket.receive_json()["type"] == "subscribed"

        client.post("/orders/7/ship")

        message = socket.receive_json()
        assert message["payload"] == {"channel": "order:7", "event": "shipped", "data": {"orderId": "7"}}


def test_strangers_may_not_chat() -> None:
    with TestClient(app) as client, client.websocket_connect("/ws") as socket:
        assert socket.receive_json()["type"] == "welcome"
        socket.send_json({"type": "chat", "payload": {"recipientId": "ada", "message": "hi"}, "id": "1"})
        answer = socket.receive_json()
        assert (answer["id"], answer["payload"]["code"]) == ("1", "unauthorized")


def test_users_chat() -> None:
    ada, brian = {"cookie": "session=c0ffee"}, {"cookie": "session=decade"}
    with (
        TestClient(app) as client,
        client.websocket_connect("/ws", headers=ada) as first,
        client.websocket_connect("/ws", headers=brian) as second,
    ):
        assert [first.receive_json()["type"], second.receive_json()["type"]] == ["welcome", "welcome"]
        first.send_json({"type": "chat", "payload": {"recipientId": "brian", "message": "hi"}})
        assert second.receive_json()["payload"] == {"from": "ada", "message": "hi"}
        assert first.receive_json()["payload"] == {"delivered": True}
