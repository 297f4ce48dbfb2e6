"""HTTP server with OpenAI's chat API (extra `serve`); no other room knows HTTP."""
