"""HTTP, with fastapi and uvicorn. Imports: what `swap` may, `swap`, `models.decisions`."""
