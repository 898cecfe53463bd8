"""HTTP: the only subpackage that imports fastapi, starlette and uvicorn."""
