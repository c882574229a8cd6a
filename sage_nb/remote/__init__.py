"""JobManager servers: the server and its runners, the client, and the environment that submits to one."""
