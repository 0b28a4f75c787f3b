"""One realm at run time: what WAMP calls the router."""
