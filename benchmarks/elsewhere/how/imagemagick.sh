#!/bin/sh
# Pictures drawn by ImageMagick:  imagemagick.sh OUT
set -e
PATH=/usr/bin:$PATH
o=$1
convert -size 400x300 xc:white -fill '#ff0000' -draw 'circle 110,150 110,80' -fill '#0000ff' -draw 'rectangle 240,85 370,215' -colors 32 PNG8:$o/imagemagick-1.png
convert -size 640x240 xc:'#ffff99' -font DejaVu-Sans-Bold -pointsize 120 -fill black -gravity center -annotate 0 WATER -quality 80 $o/imagemagick-2.jpg
convert -size 600x220 xc:white -fill '#008000' -draw 'polygon 90,40 160,180 20,180' -draw 'polygon 300,40 370,180 230,180' -draw 'polygon 510,40 580,180 440,180' -colors 32 PNG8:$o/imagemagick-3.png
convert -size 500x500 xc:white -fill '#800080' -draw 'polygon 250,60 296,196 440,196 323,280 368,418 250,334 132,418 177,280 60,196 204,196' -quality 75 $o/imagemagick-4.jpg
convert -size 450x450 xc:white -fill '#ff8800' -draw 'polygon 110,30 190,115 110,200 30,115' -font FreeSans-Bold -pointsize 130 -fill '#000080' -gravity southeast -annotate +40+30 42 -colors 48 PNG8:$o/imagemagick-5.png
convert -size 520x320 xc:white -fill none -strokewidth 14 -stroke '#dd0000' -draw 'circle 130,160 130,70' -stroke black -draw 'rectangle 280,110 490,215' -colors 32 PNG8:$o/imagemagick-6.png
convert +antialias -size 200x110 xc:white -fill '#ff69b4' -draw "path 'M 50,85 C 0,50 10,15 35,18 C 45,20 50,28 50,34 C 50,28 55,20 65,18 C 90,15 100,50 50,85 Z'" -fill '#808080' -draw 'rectangle 120,40 190,75' -colors 4 -type palette BMP3:$o/imagemagick-7.bmp
convert -size 800x600 xc:black -fill yellow -draw 'circle 160,140 160,60' -fill white -draw 'rectangle 520,340 720,540' -quality 70 $o/imagemagick-8.webp
