"""The functions: one module each. The module's name is the function's, its test's and its Terraform key's."""
