    cache_url: pydantic.Secret[pydantic.RedisDsn]
