"""The way of plain score requests past the web framework; imports what `service.api` may."""
