"""Where the functions run: Terraform for Google Cloud, `local/` for one machine, `migrations/` for the databases."""
