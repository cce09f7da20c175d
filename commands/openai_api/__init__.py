"""The OpenAI-compatible endpoint of `serve`: JSON in, JSON or server-sent events out; and a page. The files in order:

errors: a refusal with its status
fields: what a body holds, and which fields are refused
request: a body becomes requests of the engine
reply: the tokens of a response become the objects of the API
page_files, page/: the page for a browser, which asks this endpoint
app: the routes
"""
