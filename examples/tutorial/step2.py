from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

from hubbub import Hub

app = FastAPI()
hub = Hub()
hub.attach(app)


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))
