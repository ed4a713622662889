"""One import file: its bytes read, its headings and cells checked, its errors reported. Pure: no database."""
