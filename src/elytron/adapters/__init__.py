"""Adapters: Elytron under the names that other programs call, a module for each."""
