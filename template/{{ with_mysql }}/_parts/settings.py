    database_url: pydantic.Secret[pydantic.MySQLDsn]
    # How many requests of a worker use the database at once, and the connections that it holds for them.
    database_pool_size: int = pydantic.Field(10, ge=1)
