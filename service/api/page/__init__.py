"""The page: HTML, scripts and styles that show what the API answers. Imports: what `api` may."""
