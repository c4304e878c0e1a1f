    # The path begins in the working directory after three slashes, at the root after four.
    database_url: str = pydantic.Field("sqlite:///app.db", pattern="^sqlite:///.")
    # How many requests of a worker read at once, and the connections that it holds for them.
    database_pool_size: int = pydantic.Field(10, ge=1)
