"""Data: closed-form 2-D densities (`densities`) and images (`images`)."""
