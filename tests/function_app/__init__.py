"""The function app of examples/function_app, called as the Functions host calls it."""
