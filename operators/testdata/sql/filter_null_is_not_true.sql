SELECT flight FROM flights WHERE delay > 15 OR carrier = 'AA'
