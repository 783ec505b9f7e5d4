SELECT flight + 1, upper(carrier), 'x' FROM flights WHERE flight < 3
