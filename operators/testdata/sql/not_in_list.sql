SELECT flight FROM flights WHERE carrier NOT IN ('AA', 'DL')
