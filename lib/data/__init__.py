"""Data: closed-form 2-D densities (`densities`), images (`images`) and generated ones (`shapes`)."""
