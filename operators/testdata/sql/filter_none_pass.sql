SELECT flight FROM flights WHERE false
