"""The API's description: what each endpoint says of itself (`form`), and the OpenAPI document of all (`document`)."""
