"""What the small table of the report's tests is made of."""

#: One of them would end the script of the page, or fill in a part of it.
SENSORS = ["north", "</script><b>&{{PLOTLY}}", "c", "d"]
TRAINED = 400
