SELECT flight FROM flights WHERE carrier LIKE 'A%' OR carrier ILIKE 'u_' OR body ~ 'gate.*C3'
