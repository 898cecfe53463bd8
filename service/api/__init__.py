"""HTTP, with fastapi and uvicorn. Imports: `swap`, all that it may import, `models.decisions`."""
