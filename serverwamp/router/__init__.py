"""A realm at run time; WAMP calls it the router."""
