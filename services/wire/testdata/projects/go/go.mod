module example.org/shop

go 1.25

require example.org/till v1.2.3
