"""The cryptography of the login methods that use challenges."""
