"""Tables and figures of finished evaluations, as the paper draws them."""
