"""The one error of the embedded stack."""


class StackError(RuntimeError):
    """A server or process could not be started or stopped. Its text is for the operator."""


WAYS_OUT = (
    "Two ways out: set YIKE_KAFKA=host:port and YIKE_POSTGRES=postgresql://… to servers that already run, "
    "or start them in containers with `docker compose up`."
)
