from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import FileResponse

app = FastAPI()


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_name("chat.html"))
