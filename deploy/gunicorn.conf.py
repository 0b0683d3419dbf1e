"""gunicorn for a WSGI app of your own that uses streamware: gunicorn --config gunicorn.conf.py app:app"""

# One thread serves one download for as long as it lasts. The default worker, "sync", would serve one at a time and kill
# those that last longer than its timeout.
worker_class = "gthread"
workers = 2
threads = 64

graceful_timeout = 30  # what running downloads get to end; what is cut off then can be resumed
timeout = 60  # of a worker's own loop; a long download does not count
keepalive = 75  # longer than the front keeps a connection, so that a request never meets one that is being closed
limit_request_line = 8190  # a GET of a bundle names its members in the URL
control_socket_disable = True  # nothing is written but where the app writes
