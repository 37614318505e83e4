"""The API's own description: what each endpoint says of itself (`form`), and the OpenAPI 3.1 document of all of them."""
