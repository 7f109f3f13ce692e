"""Authorization plugins: each request and reply of the API is put to a chain of them (AuthZPlugin 1.0)."""
