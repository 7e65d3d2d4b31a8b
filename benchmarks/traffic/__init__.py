"""Requests of chosen lengths to a server of any kind."""
