"""Downloads of many files for a FastAPI app that knows nothing of them: its own routes are the members.

Try it:

    uvicorn fastapi_middleware:app
    curl -OJ 'http://127.0.0.1:8000/bundle?path=/notes/1.txt&path=/notes/2.txt&path=/numbers.csv&name=notes.zip'
"""

from collections.abc import Iterator

from fastapi import FastAPI, HTTPException
from fastapi.responses import PlainTextResponse, StreamingResponse

from streamware.middleware import AsyncBundleMiddleware

app = FastAPI()
NOTES = {1: "Buy milk.\n", 2: "Call home.\n"}


@app.get("/notes/{number}.txt", response_class=PlainTextResponse)
async def note(number: int) -> str:
    if number not in NOTES:
        raise HTTPException(404)
    return NOTES[number]


@app.get("/numbers.csv")
def numbers() -> StreamingResponse:
    def lines() -> Iterator[str]:
        for number in range(5_000):
            yield f"{number}\n"

    return StreamingResponse(lines(), media_type="text/csv")


app.add_middleware(AsyncBundleMiddleware, path="/bundle")
