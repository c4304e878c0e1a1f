"""The page that shows what answers render to, with Copier in the browser."""
