"""An answer as a language model writes it: every tab sees it grow, also one that is opened late; each can stop it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from hubbub import Hub

app = FastAPI()
hub = Hub()
hub.attach(app)
hub.namespace("run", publish="server")
WORDS = ["The", "sea", "keeps", "nothing", "for", "long,", "and", "gives", "back", "what", "it", "likes."]
running: dict[str, asyncio.Task[None]] = {}


async def model(question: str, words: int) -> AsyncIterator[str]:
    """Stands for the one you pay for, which sends its answer in pieces too."""
    for number in range(words):
        await asyncio.sleep(0.05)
        yield f"{WORDS[number % len(WORDS)]} "


async def answer(run: str, question: str, words: int) -> None:
    async with hub.stream(f"run:{run}") as stream:
        done = 0
        async for token in model(question, words):
            await stream.append(token)
            await stream.update({"done": (done := done + 1), "of": words})
    if stream.cancelled:
        print(f"run {run} was stopped after {done} words")


@app.post("/runs/{run}", status_code=202)
async def ask(run: str, question: str, words: int = 100) -> None:
    if run in running:
        raise HTTPException(409, "It is still being answered: stop it first.")
    task = running[run] = asyncio.create_task(answer(run, question, words))
    task.add_done_callback(lambda _: running.pop(run))


@app.get("/")
def page() -> FileResponse:
    return FileResponse(Path(__file__).with_suffix(".html"))
